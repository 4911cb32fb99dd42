//! Planner and apply: from the wanted model to a PostgreSQL schema and a JetStream stream.
//!
//! A [`Model`](autonomy_crds::Model) becomes a [`shape`]: the tables, constraints, indexes, views and types it stands for. The [`plan`]ner compares
//! the shape of the catalog's model with the wanted one and gives typed [`step`]s, each with its hazards; [`sql`] writes them as SQL; [`apply`]
//! runs a plan in one transaction together with the new catalog entry. Only [`prepare`], [`apply`], [`drift`] and [`streams`] change anything outside.

pub mod apply;
pub mod catalog;
pub mod drift;
pub mod facts;
pub mod plan;
pub mod prepare;
pub mod shape;
pub mod sql;
pub mod step;
pub mod streams;

mod scram;
