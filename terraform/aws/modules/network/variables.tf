variable "site" {
  description = "Name of the site."
  type        = string
}

variable "cidr" {
  description = "The VPC's network, a /16."
  type        = string
}

variable "zones" {
  description = "Availability zones. A zone's place in the list gives its networks."
  type        = list(string)
}

variable "nat" {
  description = "Whether private subnets reach the internet, by NAT."
  type        = bool
}

variable "nat_per_zone" {
  description = "Whether each zone has a NAT gateway of its own."
  type        = bool
}
