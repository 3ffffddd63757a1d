variable "site" {
  description = "Name of the site."
  type        = string
}

variable "nodes" {
  description = "Output `nodes` of terraform/modules/pools."
  type = map(object({
    name     = string
    pool     = string
    number   = number
    classes  = list(string)
    size     = string
    zone     = string
    labels   = map(string)
    disk_gib = number
    public   = bool
    image    = string
  }))
}

variable "image" {
  description = "Image of nodes whose pool names none."
  type        = string
}

variable "region" {
  description = "Region of the placement policy."
  type        = string
}

variable "public" {
  description = "Whether every node has a public address, not only those of public pools."
  type        = bool
}

variable "subnetwork" {
  description = "The nodes' subnet."
  type        = string
}

variable "tags" {
  description = "nodes or a node class -> network tag."
  type        = map(string)
}

variable "user" {
  description = "User of the login."
  type        = string
}

variable "public_key" {
  description = "SSH public key of the login."
  type        = string
}

variable "user_data" {
  description = "The login for cloud-init."
  type        = string
}

variable "kms_key" {
  description = "Self link of the KMS key of disks; null for Google's own."
  type        = string
}

variable "control_spread" {
  description = "Whether control nodes stand in different availability domains."
  type        = bool
}
