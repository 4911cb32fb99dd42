//! The platform on a real Kubernetes, each test named by what it claims. `make e2e` installs the chart and runs them; each test has a
//! namespace and a database of its own.

mod admission;
mod deletion;
mod dependencies;
mod drift;
mod handlers;
mod leadership;
mod loyalty;
mod migrations;
mod quiet;
mod scaling;
mod status;
mod support;
mod suspension;
mod webhooks;
