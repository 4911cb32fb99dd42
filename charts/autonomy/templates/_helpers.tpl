{{/* The start of every name: the release's name, which tells enough where it contains the chart's. */}}
{{- define "autonomy.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "autonomy.operator" -}}
{{ include "autonomy.fullname" . }}-operator
{{- end -}}

{{- define "autonomy.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "autonomy.operator" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* Labels by which a component's pods are found: (list . "operator") */}}
{{- define "autonomy.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a component's resources: (list . "operator") */}}
{{- define "autonomy.labels" -}}
{{- $root := index . 0 -}}
{{ include "autonomy.selectorLabels" . }}
app.kubernetes.io/part-of: autonomy
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of a component's pods: without versions, so that a new chart alone restarts nothing: (list . "operator") */}}
{{- define "autonomy.podLabels" -}}
{{ include "autonomy.selectorLabels" . }}
app.kubernetes.io/part-of: autonomy
{{- end -}}

{{/* An image's reference: (list . "operator") */}}
{{- define "autonomy.image" -}}
{{- $images := (index . 0).Values.images -}}
{{- index $images (index . 1) | default (printf "%s/%s:%s" $images.registry (index . 1) ($images.tag | default (index . 0).Chart.AppVersion)) -}}
{{- end -}}

{{- define "autonomy.imagePullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Pod Security "restricted", for the pod and for its container. */}}
{{- define "autonomy.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "autonomy.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Spread over nodes and zones if possible: (list . "operator") */}}
{{- define "autonomy.spread" -}}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "autonomy.selectorLabels" $ | nindent 6 }}
{{- end }}
{{- end -}}

{{/* A bundled server's password: the given one, else the one its Secret has, else a new one: (list . "postgresql") */}}
{{- define "autonomy.password" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $given := (index $root.Values.bundled $component).password -}}
{{- $secret := lookup "v1" "Secret" $root.Release.Namespace (printf "%s-%s" (include "autonomy.fullname" $root) $component) -}}
{{- if $given -}}
{{- $given -}}
{{- else if and $secret (index $secret.data "password") -}}
{{- index $secret.data "password" | b64dec -}}
{{- else -}}
{{- randAlphaNum 32 -}}
{{- end -}}
{{- end -}}

{{- /* What a network policy's egress allows for DNS. */}}
{{- define "autonomy.dnsPorts" -}}
{{- range .Values.networkPolicy.dnsPorts }}
- {protocol: UDP, port: {{ int . }}}
- {protocol: TCP, port: {{ int . }}}
{{- end }}
{{- end }}
