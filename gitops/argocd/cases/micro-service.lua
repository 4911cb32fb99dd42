local function service(suspend, conditions)
  return {
    apiVersion = "autonomy.dev/v1alpha1",
    kind = "MicroService",
    metadata = {name = "ledger", namespace = "retail", generation = 3},
    spec = {suspend = suspend},
    status = {observedGeneration = 3, replicas = 1, readyReplicas = 1, conditions = conditions},
  }
end

return {
  {
    case = "its workers are ready",
    health = "Healthy",
    message = "its workers are ready",
    object = service(false, {{type = "Ready", status = "True", reason = "Reconciled", message = "its workers are ready"}}),
  },
  {
    case = "suspended: Ready, as the spec wants it",
    health = "Suspended",
    message = "spec.suspend is true",
    object = service(true, {
      {type = "Ready", status = "True", reason = "Suspended", message = "the service is suspended; its events wait in the stream"},
    }),
  },
  {
    case = "the reason alone says it too",
    health = "Suspended",
    message = "the service is suspended; its events wait in the stream",
    object = service(nil, {
      {type = "Ready", status = "True", reason = "Suspended", message = "the service is suspended; its events wait in the stream"},
    }),
  },
  {
    case = "pods start",
    health = "Progressing",
    message = "0 of 1 pods are ready",
    object = service(false, {
      {type = "Ready", status = "False", reason = "PodsStarting", message = "0 of 1 pods are ready"},
      {type = "Reconciling", status = "True", reason = "PodsStarting", message = "0 of 1 pods are ready"},
    }),
  },
  {
    case = "pods fail",
    health = "Degraded",
    message = "pod ledger-worker-x: CrashLoopBackOff",
    object = service(false, {
      {type = "Ready", status = "False", reason = "PodsFailing", message = "pod ledger-worker-x: CrashLoopBackOff"},
      {type = "Stalled", status = "True", reason = "PodsFailing", message = "pod ledger-worker-x: CrashLoopBackOff"},
    }),
  },
}
