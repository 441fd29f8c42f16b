{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{- define "weir.labels" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- define "weir.selector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "weir.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}
{{- define "weir.settings" -}}
{{ toYaml .Values.settings }}
{{- end }}
{{- define "weir.scheme" -}}
{{ if .Values.webConfig.secretName }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}
{{- define "weir.volumeMounts" -}}
- {name: settings, mountPath: /etc/weir, readOnly: true}
- {name: bpffs, mountPath: /sys/fs/bpf}
- {name: cgroup, mountPath: /host/cgroup, readOnly: true}
- {name: run, mountPath: /run/weir}
- {name: cache, mountPath: /var/cache/weir}
- {name: tmp, mountPath: /tmp}
{{- end }}
{{- define "weir.probe" -}}
httpGet: {path: {{ .path }}, port: metrics, scheme: {{ include "weir.scheme" .root }}{{ if hasPrefix "127." .root.Values.listen.address }}, host: 127.0.0.1{{ end }}}
{{- end }}
