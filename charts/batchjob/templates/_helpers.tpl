{{/* Names: every object is called `batchjob.fullname`, some with a suffix. */}}
{{- define "batchjob.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "batchjob.fullname" -}}
{{- $name := include "batchjob.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "batchjob.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "batchjob.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "batchjob.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* What selects the operator's pod. A Deployment's selector cannot be changed: neither may this. */}}
{{- define "batchjob.selectorLabels" -}}
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/name: {{ include "batchjob.name" . | quote }}
{{- end -}}

{{/* Every object's labels; on a clash with `commonLabels` the chart's own win. */}}
{{- define "batchjob.labels" -}}
{{- $own := dict
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/name" (include "batchjob.name" .)
  "app.kubernetes.io/version" .Chart.AppVersion
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- merge $own (.Values.commonLabels | default dict) | toYaml -}}
{{- end -}}

{{/* The pod's labels: no chart version in them, so that a new chart alone does not restart the operator. */}}
{{- define "batchjob.podLabels" -}}
{{- merge (include "batchjob.selectorLabels" . | fromYaml) (.Values.podLabels | default dict) (.Values.commonLabels | default dict) | toYaml -}}
{{- end -}}

{{/* Where the operator looks after BatchJobs when it does not look everywhere; where `helm test` runs one. */}}
{{- define "batchjob.workNamespace" -}}
{{- .Values.watchNamespace | default .Release.Namespace -}}
{{- end -}}
