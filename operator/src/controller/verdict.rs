//! What a reconcile found, as conditions after kstatus: `Ready` always, `Reconciling` while it goes on, `Stalled` while somebody has to act.

use autonomy_crds::condition::{READY, RECONCILING, ReconciledStatus, STALLED};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

// A condition's message may have this many characters.
const MESSAGE_LIMIT: usize = 32_000;

/// Whether work is done, goes on, or waits for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything is as the spec wants it.
    Ready,
    /// The operator works on it, or waits for something that may come by itself.
    Progressing,
    /// Nothing changes until somebody acts.
    Stalled,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $standing:ident,)*) => {
        /// Why a resource stands as it does: the `reason` of its conditions. docs/operations.md says of each what to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])* $name,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// As conditions and events name it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            /// The standing that comes with it.
            pub fn standing(self) -> Standing {
                match self { $(Self::$name => Standing::$standing),* }
            }
        }
    };
}

reasons! {
    /// Everything is as the spec wants it.
    Reconciled = Ready,
    /// It is suspended, as the spec wants it.
    Suspended = Ready,
    /// The spec can't be put into effect: each fault with its field path.
    Invalid = Stalled,
    /// A Secret, ConfigMap or PersistentVolumeClaim that the spec names is not there, or lacks the key.
    ReferenceMissing = Progressing,
    /// The DataPlatform is not there.
    PlatformMissing = Progressing,
    /// The DataPlatform is not ready to be used.
    PlatformNotReady = Progressing,
    /// A DataModel that is imported or used is not there.
    ModelMissing = Progressing,
    /// A DataModel that is imported or used is not applied yet, or not with the entities needed.
    ModelNotReady = Progressing,
    /// PostgreSQL does not answer.
    DatabaseUnavailable = Progressing,
    /// PostgreSQL refuses what has to be done.
    DatabaseRefused = Stalled,
    /// NATS does not answer, or refuses what has to be done.
    MessagingUnavailable = Progressing,
    /// A migration runs.
    MigrationRunning = Progressing,
    /// A hazardous Migration waits for approval.
    ApprovalNeeded = Stalled,
    /// PostgreSQL refused the migration; nothing was changed.
    MigrationFailed = Stalled,
    /// The model's tables were locked by others for too long.
    TablesBusy = Progressing,
    /// The database was changed by hand in a way that the operator does not undo.
    Drifted = Stalled,
    /// An object of the name that is needed exists and belongs to somebody else.
    NameTaken = Stalled,
    /// The Kubernetes API refused or failed.
    KubernetesError = Progressing,
    /// Pods are being started.
    PodsStarting = Progressing,
    /// Pods do not become ready.
    PodsFailing = Stalled,
    /// What lies outside the cluster is being removed.
    Deleting = Progressing,
    /// It can't be removed while others need it.
    StillInUse = Stalled,
}

/// What a reconcile found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why it stands as it does.
    pub reason: Reason,
    /// For a person: what is wrong, where, and what to do.
    pub message: String,
}

impl Verdict {
    /// A verdict.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_LIMIT) {
            message.truncate(end);
            message.push('…');
        }
        Self { reason, message }
    }

    /// Puts the verdict's conditions into a status. Times of transition stay where nothing changed.
    pub fn write<S: ReconciledStatus>(&self, status: &mut S, generation: Option<i64>) {
        let before: Vec<Condition> = status.standing().1.to_vec();
        let standing = self.reason.standing();
        let mut wanted = vec![(READY, standing == Standing::Ready)];
        match standing {
            Standing::Ready => {}
            Standing::Progressing => wanted.push((RECONCILING, true)),
            Standing::Stalled => wanted.push((STALLED, true)),
        }
        let conditions = wanted.into_iter().map(|(type_, truth)| {
            let state = if truth { "True" } else { "False" };
            let since = before.iter().find(|old| old.type_ == type_ && old.status == state).map(|old| old.last_transition_time.clone());
            Condition {
                type_: type_.to_owned(),
                status: state.to_owned(),
                reason: self.reason.as_str().to_owned(),
                message: self.message.clone(),
                observed_generation: generation,
                last_transition_time: since.unwrap_or_else(now),
            }
        });
        status.set_standing(generation, conditions.collect());
    }

    /// Whether a status says so already, whatever its times and generation.
    pub fn is_told_by<S: ReconciledStatus>(&self, status: &S) -> bool {
        status
            .standing()
            .1
            .iter()
            .any(|condition| condition.type_ == READY && condition.reason == self.reason.as_str() && condition.message == self.message)
    }
}

// Kubernetes keeps whole seconds.
fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use autonomy_crds::data_model::DataModelStatus;

    use super::*;

    fn conditions(status: &DataModelStatus) -> Vec<(&str, &str, &str)> {
        status.conditions.iter().map(|found| (found.type_.as_str(), found.status.as_str(), found.reason.as_str())).collect()
    }

    #[test]
    fn standings_become_the_conditions_of_kstatus() {
        let mut status = DataModelStatus::default();
        Verdict::new(Reason::PlatformMissing, "none").write(&mut status, Some(1));
        assert_eq!(conditions(&status), [("Ready", "False", "PlatformMissing"), ("Reconciling", "True", "PlatformMissing")]);
        Verdict::new(Reason::Invalid, "wrong").write(&mut status, Some(2));
        assert_eq!(conditions(&status), [("Ready", "False", "Invalid"), ("Stalled", "True", "Invalid")]);
        Verdict::new(Reason::Reconciled, "fine").write(&mut status, Some(2));
        assert_eq!(conditions(&status), [("Ready", "True", "Reconciled")]);
        assert_eq!(status.observed_generation, Some(2));
    }

    #[test]
    fn the_time_of_transition_moves_with_the_status_only() {
        let mut status = DataModelStatus::default();
        Verdict::new(Reason::PlatformMissing, "none").write(&mut status, Some(1));
        let long_ago = Time(Timestamp::from_second(1).expect("a time"));
        status.conditions[0].last_transition_time = long_ago.clone();
        Verdict::new(Reason::Invalid, "wrong").write(&mut status, Some(2));
        assert_eq!(status.conditions[0].last_transition_time, long_ago, "Ready is False as before");
        Verdict::new(Reason::Reconciled, "fine").write(&mut status, Some(2));
        assert_ne!(status.conditions[0].last_transition_time, long_ago);
    }

    #[test]
    fn each_reason_is_told_in_the_operations_guide() {
        let guide = include_str!("../../../docs/operations.md");
        for reason in Reason::ALL {
            assert!(guide.contains(&format!("`{}`", reason.as_str())), "docs/operations.md does not tell {}", reason.as_str());
        }
    }
}
