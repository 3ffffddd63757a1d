module ashlar.internal/artifacts/log_collector

go 1.26.0

toolchain go1.26.8
