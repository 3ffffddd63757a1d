variable "site" {
  description = "Name of the site."
  type        = string
}

variable "external_network" {
  description = "Name of the network outside."
  type        = string
}

variable "gateways" {
  description = "CIDR of bastion and load balancers."
  type        = string
}

variable "nodes" {
  description = "CIDR of nodes."
  type        = string
}

variable "dns_nameservers" {
  description = "Name servers; none for the cloud's."
  type        = list(string)
}

variable "tags" {
  description = "Tags of all that can have some."
  type        = list(string)
}
