variable "site" {
  description = "Name of the site."
  type        = string
}

variable "ingress" {
  description = "Output `ingress` of terraform/modules/ports."
  type = map(object({
    class       = string
    protocol    = string
    from_port   = number
    to_port     = number
    source      = string
    cidr        = string
    description = string
  }))
}

variable "admin" {
  description = "CIDRs that may reach the bastion."
  type        = list(string)
}

variable "bastion" {
  description = "Whether there is a bastion."
  type        = bool
}

variable "tags" {
  description = "Tags of the groups."
  type        = list(string)
}
