{{- define "rankd.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 52 characters, so that names with a suffix stay valid. */}}
{{- define "rankd.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "rankd.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "rankd.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "rankd.selector" -}}
app.kubernetes.io/name: {{ include "rankd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "rankd.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "rankd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "rankd.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion .Values.image.variant) }}
{{- end -}}

{{- define "rankd.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "rankd.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* The Secret with the keys, or nothing if no keys are set. */}}
{{- define "rankd.keysSecret" -}}
{{- if and .Values.keys.existingSecret .Values.keys.list -}}
{{- fail "keys.existingSecret and keys.list: give one of them" -}}
{{- else if .Values.keys.existingSecret -}}
{{ .Values.keys.existingSecret }}
{{- else if .Values.keys.list -}}
{{ include "rankd.fullname" . }}-keys
{{- end -}}
{{- end -}}

{{- define "rankd.modelsClaim" -}}
{{- if .Values.models.existingClaim -}}
{{ .Values.models.existingClaim }}
{{- else if .Values.models.create -}}
{{ include "rankd.fullname" . }}-models
{{- end -}}
{{- end -}}
