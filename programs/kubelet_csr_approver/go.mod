module ashlar.internal/programs/kubelet_csr_approver

go 1.26.0

toolchain go1.26.8
