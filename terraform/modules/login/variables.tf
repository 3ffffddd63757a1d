variable "user" {
  description = "User that Ansible comes as; may use sudo, has no password."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z_][a-z0-9_-]{0,31}$", var.user)) && var.user != "root"
    error_message = "user is ${jsonencode(var.user)}. Allowed: 1 to 32 small letters, digits, hyphens and underscores, a letter or underscore first, and not root: its login is closed."
  }
}

variable "public_key" {
  description = "SSH public key of Ansible, one line as in id_ed25519.pub."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh.com|sk-ecdsa-sha2-nistp256@openssh.com) [A-Za-z0-9+/]+=*( [ -~]*)?$", trimspace(var.public_key)))
    error_message = "public_key is no SSH public key. Allowed: one line, type, base64 and comment, as in the file id_ed25519.pub that ssh-keygen writes."
  }
}
