//! A trading day of the retail loyalty case: store files, stand-ins, and what must come out.
