//! The operator: planner and apply, from the wanted model to a PostgreSQL schema and a JetStream stream; and the reconcilers ([`controller`]) that
//! bring both, and what runs in the cluster, to what the resources say.
//!
//! A [`Model`](autonomy_crds::Model) becomes a [`shape`]: the tables, constraints, indexes, views and types it stands for. The [`plan`]ner compares
//! the shape of the catalog's model with the wanted one and gives typed [`step`]s, each with its hazards; [`sql`] writes them as SQL; [`apply`]
//! runs a plan in one transaction together with the new catalog entry. Only [`prepare`], [`apply`], [`drift`], [`removal`] and
//! [`streams`] change anything outside; of the reconcilers only their `apply` and `cleanup`.

pub mod apply;
pub mod catalog;
pub mod controller;
pub mod drift;
pub mod facts;
pub mod plan;
pub mod prepare;
pub mod process;
pub mod removal;
pub mod shape;
pub mod sql;
pub mod step;
pub mod streams;

mod scram;
