local function model(generation, spec, observed, conditions)
  return {
    apiVersion = "autonomy.dev/v1alpha1",
    kind = "DataModel",
    metadata = {name = "retail", namespace = "retail", generation = generation},
    spec = spec,
    status = {observedGeneration = observed, conditions = conditions},
  }
end

local served = {{type = "Ready", status = "True", reason = "Reconciled", message = "revision 1 is served"}}

return {
  {
    case = "served",
    health = "Healthy",
    message = "revision 1 is served",
    object = model(1, {suspend = false}, 1, served),
  },
  {
    case = "a new spec, and still the status of the one before",
    health = "Progressing",
    message = "the operator has not looked at this spec yet",
    object = model(2, {suspend = false}, 1, served),
  },
  {
    case = "suspended in a new spec: the status stays the one before",
    health = "Suspended",
    message = "spec.suspend is true",
    object = model(2, {suspend = true}, 1, served),
  },
  {
    case = "an import is waited for",
    health = "Progressing",
    message = "spec.imports: there is no DataModel parties in this namespace; it is waited for",
    object = model(1, {}, 1, {
      {
        type = "Ready",
        status = "False",
        reason = "ModelMissing",
        message = "spec.imports: there is no DataModel parties in this namespace; it is waited for",
      },
      {type = "Reconciling", status = "True", reason = "ModelMissing", message = "the same"},
    }),
  },
  {
    case = "a hazardous migration waits for approval",
    health = "Degraded",
    message = "Migration retail-r2-0123456789 waits for approval, and the model is served as before",
    object = model(2, {suspend = false}, 2, {
      {
        type = "Ready",
        status = "False",
        reason = "ApprovalNeeded",
        message = "Migration retail-r2-0123456789 waits for approval, and the model is served as before",
      },
      {type = "Stalled", status = "True", reason = "ApprovalNeeded", message = "the same"},
    }),
  },
  {
    case = "Stalled, but no more",
    health = "Progressing",
    message = "the tables are busy",
    object = model(1, {suspend = false}, 1, {
      {type = "Ready", status = "False", reason = "TablesBusy", message = "the tables are busy"},
      {type = "Stalled", status = "False", reason = "TablesBusy", message = "the same"},
    }),
  },
}
