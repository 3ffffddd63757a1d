module ashlar.internal/programs/log_collector

go 1.26.0

toolchain go1.26.8
