{{/*
Values of the published operator's chart. What stands under `operator` there is at the top here, and some have
another name or no meaning. `flotilla.values` makes one set of all of them, and stands at the beginning of every
template: they share the values, and nothing says which of them comes first.
*/}}
{{- define "flotilla.values" -}}
{{- if not (hasKey .Values "withoutEffect") }}
{{- if and .Release.IsUpgrade (or .Values.operator .Values.gateway) }}
{{- include "flotilla.noGateways" . }}
{{- end }}
{{- include "flotilla.operatorOnly" . }}
{{- with .Values.operator }}
{{- if eq (toString .enabled) "false" }}
{{- fail "operator.enabled is false, and this chart installs nothing but what replaces the operator: leave the value out, or do not install it" }}
{{- end }}
{{- include "flotilla.over" (dict "into" $.Values "from" (omit . "enabled" "image")) }}
{{- end }}
{{- $values := .Values }}
{{- $aliases := list
  (list "imagePullSecrets" "image.pullSecrets")
  (list "grpc.tls.vault.pkiMount" "vault.pkiMount")
  (list "grpc.tls.vault.role" "vault.pkiRole")
  (list "grpc.tls.vault.commonName" "vault.commonName")
  (list "grpc.tls.vault.altNames" "vault.altNames")
  (list "grpc.tls.vault.ttl" "vault.ttl")
  (list "vault.role" "vault.kubernetes.role")
  (list "vault.kubernetesMountPath" "vault.kubernetes.mount")
}}
{{- range $aliases }}
{{- $found := include "flotilla.at" (dict "in" $values "path" (first .)) | fromJson }}
{{- /* An empty text or list means "as it is without it" there. */}}
{{- if and (hasKey $found "value") (or (kindIs "bool" $found.value) $found.value) }}
{{- $names := splitList "." (last .) }}
{{- $at := $values }}
{{- range initial $names }}
{{- $at = index $at . }}
{{- end }}
{{- $_ := set $at (last $names) $found.value }}
{{- end }}
{{- end }}
{{- include "flotilla.clientCertificates" . }}
{{- if hasKey $values.webhook.duplicateDetection "clusterWide" }}
{{- $_ := set $values.webhook.duplicateDetection "scope" (ternary "cluster" "namespace" $values.webhook.duplicateDetection.clusterWide) }}
{{- end }}
{{- /* One source signs for webhooks and gateways there, and it is the webhooks' while these are on. */}}
{{- $theirs := get (default dict $values.webhook.tls) "mode" }}
{{- /* Not given means selfsigned there, and `helm get values` tells only what was given. */}}
{{- $moved := get (include "flotilla.at" (dict "in" $values "path" "operator.grpc.tls.mode") | fromJson) "value" }}
{{- if and (not $theirs) (eq (toString $moved) "vault") }}
{{- $theirs = "selfsigned" }}
{{- end }}
{{- $ours := $values.grpc.tls.mode }}
{{- if and $values.webhook.enabled $theirs (ne $ours (ternary "files" $theirs (eq $theirs "cert-manager"))) }}
{{- fail (printf "webhook.tls.mode is %s and grpc.tls.mode is %s: the published operator takes the former for all its certificates, also those that gateways see, and flotilla takes the latter. Look at which it was and let both say that, see runbooks/replace-the-published-operator.md" $theirs $ours) }}
{{- end }}
{{- $reasons := list
  (list "operator.image" "it names the published operator; what is installed is said by `image`")
  (list "leaderElection" "replicas always elect a leader; `leases.leader` says how fast")
  (list "grpc.tls.caBundle" "gateways get ca.crt with their certificates, see the runbook on certificates")
  (list "grpc.tls.selfsigned" "`grpc.tls.caLifetime` and `grpc.tls.certLifetime` say how long certificates last")
  (list "webhook.tls" "webhooks use the replicas' own certificates, which `grpc.tls.mode` is about; the leader keeps the CA bundle true")
  (list "webhook.duplicateDetection.cacheEnabled" "duplicates are looked for among all objects as they are, without a cache")
  (list "webhook.duplicateDetection.cacheTTL" "duplicates are looked for among all objects as they are, without a cache")
  (list "vault.enabled" "`grpc.tls.mode=vault` says whether a Vault is used")
  (list "vault.authMethod" "replicas log in by their service account, or by a token when `vault.tokenSecret` names its Secret")
  (list "vault.token" "a token in values can be read by everybody who sees the release: put it into a Secret, under `token`, and name that in `vault.tokenSecret`")
  (list "metrics.enabled" "metrics are always served")
  (list "serviceAccount.automount" "replicas need the token, and no other pod gets it")
  (list "podSecurityContext" "replicas run as the uid 65532 without any rights of the node")
  (list "securityContext" "replicas run as the uid 65532 with a read-only root and without capabilities")
  (list "livenessProbe.httpGet" "it is /healthz at `health.port`")
  (list "readinessProbe.httpGet" "it is /readyz at `health.port`")
}}
{{- $given := list }}
{{- range $reasons }}
{{- if hasKey (include "flotilla.at" (dict "in" $values "path" (first .)) | fromJson) "value" }}
{{- $given = append $given (printf "%s: %s" (first .) (last .)) }}
{{- end }}
{{- end }}
{{- $_ := set $values "withoutEffect" $given }}
{{- end }}
{{- end -}}

{{/*
Values that the published chart has at the top for its gateways. Beside them stand others that replicas have too
(`resources`, `service`, `extraEnv`), so a file with them would put the gateways' settings onto replicas; without
`operator`, what stands there was meant for another place.
*/}}
{{- define "flotilla.operatorOnly" -}}
{{- $found := list }}
{{- $operator := default dict .Values.operator }}
{{- range list "gateway" "ingress" "autoscaling" "redis" "redisEnv" "keycloak" "tls" "podSecurityContext" "securityContext" "serviceAccount.automount" "livenessProbe.httpGet" "readinessProbe.httpGet" }}
{{- if hasKey (include "flotilla.at" (dict "in" $.Values "path" .) | fromJson) "value" }}
{{- $found = append $found . }}
{{- end }}
{{- end }}
{{- range list "service.httpPort" "service.httpsPort" "service.grpcPort" "service.grpcTlsPort" "service.metricsPort" "vault.injectEnv" "vault.secretPath" "vault.tls" "vault.pki" }}
{{- if hasKey (include "flotilla.at" (dict "in" $.Values "path" .) | fromJson) "value" }}
{{- $found = append $found . }}
{{- end }}
{{- if hasKey (include "flotilla.at" (dict "in" $operator "path" .) | fromJson) "value" }}
{{- $found = append $found (printf "operator.%s" .) }}
{{- end }}
{{- end }}
{{- if $found }}
{{- fail (printf "%s: this chart has no such value; the published chart has it for gateways, which this chart does not install. Of that chart's values pass only `operator`, see runbooks/replace-the-published-operator.md" (join ", " $found)) }}
{{- end }}
{{- end -}}

{{/*
Whether gateways need a certificate: of two names neither may beat the other in silence. What decides is kept for the
notes.
*/}}
{{- define "flotilla.clientCertificates" -}}
{{- $old := get .Values.grpc "requireClientCert" }}
{{- $own := get .Values.grpc.tls "requireClientCertificate" }}
{{- if and (kindIs "bool" $old) (kindIs "bool" $own) (ne $old $own) }}
{{- fail (printf "grpc.requireClientCert is %t and grpc.tls.requireClientCertificate is %t: they are names of one thing, so leave one of them out" $old $own) }}
{{- end }}
{{- $name := ternary "grpc.requireClientCert" "grpc.tls.requireClientCertificate" (kindIs "bool" $old) }}
{{- if hasKey (include "flotilla.at" (dict "in" .Values "path" (printf "operator.%s" $name)) | fromJson) "value" }}
{{- $name = printf "operator.%s" $name }}
{{- end }}
{{- $_ := set .Values "clientCertificatesBy" $name }}
{{- $_ := set .Values.grpc.tls "requireClientCertificate" (ternary $old (ternary $own true (kindIs "bool" $own)) (kindIs "bool" $old)) }}
{{- end -}}

{{/* Puts what stands in `from` over what stands in `into`, however deep, also what is empty. */}}
{{- define "flotilla.over" -}}
{{- range $key, $value := .from }}
{{- if and (kindIs "map" $value) (kindIs "map" (get $.into $key)) }}
{{- include "flotilla.over" (dict "into" (get $.into $key) "from" $value) }}
{{- else if not (kindIs "invalid" $value) }}
{{- $_ := set $.into $key $value }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The value at a path, as JSON: {} when there is none. */}}
{{- define "flotilla.at" -}}
{{- $at := .in }}
{{- $there := true }}
{{- range splitList "." .path }}
{{- if and $there (kindIs "map" $at) }}
{{- $there = hasKey $at . }}
{{- $at = index $at . }}
{{- else }}
{{- $there = false }}
{{- end }}
{{- end }}
{{- if and $there (not (kindIs "invalid" $at)) }}
{{- dict "value" $at | toJson }}
{{- else }}
{{- dict | toJson }}
{{- end }}
{{- end -}}

{{/*
The published chart has gateways and operator in one release, and Helm removes what the next version of a release does
not have. Looked at only with values of that chart, because it takes the right to list Deployments.
*/}}
{{- define "flotilla.noGateways" -}}
{{- range (lookup "apps/v1" "Deployment" .Release.Namespace "").items }}
{{- $release := get (default dict .metadata.annotations) "meta.helm.sh/release-name" }}
{{- $chart := get (default dict .metadata.labels) "helm.sh/chart" }}
{{- if and (eq $release $.Release.Name) (hasPrefix "avapigw-" $chart) }}
{{- fail (printf "the release %s has the Deployment %s of the chart %s, which this upgrade would remove, gateways and all: install flotilla as a release of its own, see runbooks/replace-the-published-operator.md" $release .metadata.name $chart) }}
{{- end }}
{{- end }}
{{- end -}}
