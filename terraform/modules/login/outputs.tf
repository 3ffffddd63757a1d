output "user" {
  description = "The user of the login."
  value       = var.user
}

output "public_key" {
  description = "The SSH public key, one line."
  value       = local.public_key

  precondition {
    condition     = local.found
    error_message = "There is no SSH public key ${local.file == "" ? "(neither a file nor a site is named)" : local.file}. Make the site's own with: install -d -m 700 ${coalesce(local.ssh_folder, "credentials/ssh")} && ssh-keygen -q -t ed25519 -N '' -f ${coalesce(local.ssh_folder, "credentials/ssh")}/id_ed25519 (or name another in ssh_public_key)."
  }

  precondition {
    condition     = !local.found || local.is_key
    error_message = "${local.from_file ? local.file : "public_key"} holds no SSH public key. Allowed: one line of type, base64 and comment, as ssh-keygen writes to id_ed25519.pub; never the private key."
  }
}

output "user_data" {
  description = "A #cloud-config with the login and nothing else."
  value       = local.user_data
}
