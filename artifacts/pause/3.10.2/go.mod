module ashlar.internal/artifacts/pause

go 1.26

toolchain go1.26.8

require k8s.io/kubernetes v1.36.3
