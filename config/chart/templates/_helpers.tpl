{{- define "enid.selector" -}}
app.kubernetes.io/name: enid
{{- end -}}

{{- define "enid.labels" -}}
{{ include "enid.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "enid.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Where the API server is, for a container that starts before kube-proxy. */ -}}
{{- define "enid.apiServer" -}}
{{- with .Values.apiServer }}{{ if .host -}}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | quote }}
{{- end }}{{ end }}
{{- end -}}

{{- /* What a setting is to be on all nodes, empty if nobody says it: (list . "NAME"). */ -}}
{{- define "enid.setting" -}}
{{- $values := (index . 0).Values -}}
{{- $name := index . 1 -}}
{{- ternary $values.settings $values.env (hasKey $values.settings $name) | dig $name "" | toString -}}
{{- end -}}

{{- /* "yes" if a setting is wanted on some node, by whichever way: (list . "NAME"); else empty. */ -}}
{{- define "enid.isSet" -}}
{{- $name := index . 1 -}}
{{- $ways := append (values (index . 0).Values.profiles) (index . 0).Values.settings -}}
{{- range append $ways (index . 0).Values.env -}}
{{- if not (has (dig $name "" . | toString) (list "" "false")) -}}yes{{- end -}}
{{- end -}}
{{- end -}}
