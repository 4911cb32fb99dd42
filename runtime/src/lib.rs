//! The data plane: one binary, one subcommand a role.
