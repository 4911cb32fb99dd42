//! The autonomy command: local mode, dead letters, models.
