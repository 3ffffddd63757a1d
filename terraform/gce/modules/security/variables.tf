variable "site" {
  description = "Name of the site."
  type        = string
}

variable "network" {
  description = "The network."
  type        = string
}

variable "rules" {
  description = "Output `rules` of terraform/modules/ports."
  type = map(map(object({
    protocol     = string
    from_port    = number
    to_port      = number
    from_classes = list(string)
    from_bastion = bool
    cidrs        = list(string)
    from_any     = bool
    components   = list(string)
  })))
}

variable "admin" {
  description = "CIDRs that may reach the bastion."
  type        = list(string)
}

variable "bastion" {
  description = "Whether there is a bastion."
  type        = bool
}
