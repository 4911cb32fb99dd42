-- Statuses as the operator writes them; each with the health that Argo CD is to show.
local function platform(spec, status)
  return {
    apiVersion = "autonomy.dev/v1alpha1",
    kind = "DataPlatform",
    metadata = {name = "default", namespace = "retail", generation = 1},
    spec = spec,
    status = status,
  }
end

return {
  {
    case = "just applied: no status",
    health = "Progressing",
    message = "the operator has not looked at this spec yet",
    object = platform({suspend = false}, nil),
  },
  {
    case = "its Secret is waited for",
    health = "Progressing",
    message = "spec.postgresql.urlFrom: there is no Secret autonomy-postgresql in namespace retail; it is waited for",
    object = platform({suspend = false}, {
      observedGeneration = 1,
      conditions = {
        {
          type = "Ready",
          status = "False",
          reason = "ReferenceMissing",
          observedGeneration = 1,
          message = "spec.postgresql.urlFrom: there is no Secret autonomy-postgresql in namespace retail; it is waited for",
        },
        {
          type = "Reconciling",
          status = "True",
          reason = "ReferenceMissing",
          observedGeneration = 1,
          message = "spec.postgresql.urlFrom: there is no Secret autonomy-postgresql in namespace retail; it is waited for",
        },
      },
    }),
  },
  {
    case = "PostgreSQL refuses",
    health = "Degraded",
    message = "PostgreSQL runs with wal_level=replica",
    object = platform({suspend = false}, {
      observedGeneration = 1,
      conditions = {
        {type = "Ready", status = "False", reason = "DatabaseRefused", message = "PostgreSQL runs with wal_level=replica"},
        {type = "Stalled", status = "True", reason = "DatabaseRefused", message = "PostgreSQL runs with wal_level=replica"},
      },
    }),
  },
  {
    case = "served",
    health = "Healthy",
    message = "the object API is served at http://default-api.retail.svc:8080",
    object = platform({suspend = false}, {
      observedGeneration = 1,
      apiUrl = "http://default-api.retail.svc:8080",
      conditions = {
        {
          type = "Ready",
          status = "True",
          reason = "Reconciled",
          message = "the object API is served at http://default-api.retail.svc:8080",
        },
      },
    }),
  },
  {
    case = "suspended before it was ever looked at",
    health = "Suspended",
    message = "spec.suspend is true",
    object = platform({suspend = true}, nil),
  },
}
