locals {
  ssh_folder = var.site_folder == null ? null : "${trimsuffix(var.site_folder, "/")}/credentials/ssh"
  file       = try(var.public_key_file != null ? var.public_key_file : "${local.ssh_folder}/id_ed25519.pub", "")
  from_file  = var.public_key == null
  found      = !local.from_file || try(fileexists(local.file), false)
  public_key = trimspace(local.from_file ? try(file(local.file), "") : var.public_key)
  is_key     = can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\\.com|sk-ecdsa-sha2-nistp256@openssh\\.com) [A-Za-z0-9+/]+=*( [ -~]*)?$", local.public_key))
  user_data  = templatefile("${path.module}/cloud-config.yml.tftpl", { user = var.user, public_key = local.public_key })
}
