{{- define "fedcac.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "fedcac.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* What every container of the pod has in common. */ -}}
{{- define "fedcac.process" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* The lead's whole folder, for the engine and the dashboard. */ -}}
{{- define "fedcac.leadMounts" -}}
- {name: lead, mountPath: /lead}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- /* The courier's folder: neither the lead's signing key nor the database lies in it. */ -}}
{{- define "fedcac.courierMounts" -}}
- {name: lead, mountPath: /lead/courier, subPath: courier}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "fedcac.database" -}}
{{- if .Values.database.existingSecret }}
env:
  - name: FEDCAC_DATABASE_URL
    valueFrom:
      secretKeyRef:
        name: {{ .Values.database.existingSecret }}
        key: {{ .Values.database.key }}
{{- end }}
{{- end }}
