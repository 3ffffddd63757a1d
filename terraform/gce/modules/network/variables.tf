variable "site" {
  description = "Name of the site."
  type        = string
}

variable "region" {
  description = "Region of the subnets."
  type        = string
}

variable "gateways" {
  description = "CIDR of the subnet that the bastion stands in."
  type        = string
}

variable "nodes" {
  description = "CIDR of the nodes' subnet."
  type        = string
}

variable "nat" {
  description = "Whether machines without a public address reach the internet, by Cloud NAT."
  type        = bool
}
