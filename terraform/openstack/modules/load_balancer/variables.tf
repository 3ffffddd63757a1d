variable "name" {
  description = "Name of the load balancer."
  type        = string
}

variable "vip_subnet" {
  description = "Subnet that it stands in."
  type        = string
}

variable "member_subnet" {
  description = "Subnet of the nodes behind it."
  type        = string
}

variable "external_network" {
  description = "Name of the network that its floating address is from."
  type        = string
}

variable "ports" {
  description = "TCP ports that it passes on, to the same ports."
  type        = list(number)
}

variable "from" {
  description = "CIDRs that may reach it; null for anyone."
  type        = list(string)
}

variable "nodes" {
  description = "Node behind it -> private address."
  type        = map(string)
}

variable "tags" {
  description = "Tags of load balancer and floating address."
  type        = list(string)
}
