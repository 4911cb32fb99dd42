local function migration(status)
  return {
    apiVersion = "autonomy.dev/v1alpha1",
    kind = "Migration",
    metadata = {name = "retail-r2-0123456789", namespace = "retail", generation = 1},
    spec = {dataModel = "retail", fromRevision = 1, hazardous = true, sha256 = "0123456789", steps = {}},
    status = status,
  }
end

local function state(name, ready, reason, message, other)
  local conditions = {{type = "Ready", status = ready, reason = reason, message = message}}
  if other then
    conditions[2] = {type = other, status = "True", reason = reason, message = message}
  end
  return migration({observedGeneration = 1, state = name, conditions = conditions})
end

return {
  {
    case = "just made: no status",
    health = "Progressing",
    message = "it is to run",
    object = migration(nil),
  },
  {
    case = "it runs",
    health = "Progressing",
    message = "it is run",
    object = state("Pending", "False", "MigrationRunning", "it is run", "Reconciling"),
  },
  {
    case = "it waits for approval",
    health = "Suspended",
    message = "waits for approval: set spec.migrations.approved of DataModel retail to 0123456789",
    object = state(
      "WaitingForApproval",
      "False",
      "ApprovalNeeded",
      "waits for approval: set spec.migrations.approved of DataModel retail to 0123456789",
      "Stalled"
    ),
  },
  {
    case = "it ran",
    health = "Healthy",
    message = "4 statements ran; revision 2 is served",
    object = state("Applied", "True", "Reconciled", "4 statements ran; revision 2 is served"),
  },
  {
    case = "another plan took its place",
    health = "Healthy",
    message = "another plan took its place before it ran",
    object = state("Superseded", "True", "Reconciled", "another plan took its place before it ran"),
  },
  {
    case = "PostgreSQL refused it",
    health = "Degraded",
    message = "PostgreSQL refused a statement",
    object = state("Failed", "False", "MigrationFailed", "PostgreSQL refused a statement", "Stalled"),
  },
}
