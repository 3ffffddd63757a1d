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
  description = "SSH public key of Ansible, one line as in id_ed25519.pub. Null: what stands in public_key_file."
  type        = string
  default     = null
}

variable "public_key_file" {
  description = "File of the public key. Null: credentials/ssh/id_ed25519.pub of the site."
  type        = string
  default     = null
}

variable "site_folder" {
  description = "Folder of the site. Needed where neither public_key nor public_key_file is given."
  type        = string
  default     = null
}
