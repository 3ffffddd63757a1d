locals {
  user_data = templatefile("${path.module}/cloud-config.yml.tftpl", { user = var.user, public_key = trimspace(var.public_key) })
}
