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
  description = "AMI of nodes whose pool names none."
  type        = string
}

variable "public" {
  description = "Whether every node has a public address, not only those of public pools."
  type        = bool
}

variable "private_subnets" {
  description = "Zone -> subnet."
  type        = map(string)
}

variable "public_subnets" {
  description = "Zone -> subnet."
  type        = map(string)
}

variable "groups" {
  description = "nodes or a node class -> security group."
  type        = map(string)
}

variable "user" {
  description = "User of the login."
  type        = string
}

variable "user_data" {
  description = "The login."
  type        = string
}

variable "kms_key" {
  description = "ARN of the KMS key of disks; null for the account's own."
  type        = string
}

variable "control_spread" {
  description = "Whether control nodes stand on different hardware."
  type        = bool
}
