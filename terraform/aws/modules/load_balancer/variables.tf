variable "name" {
  description = "Name of the load balancer, at most 26 characters, since AWS allows 32 with a port behind it."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnets" {
  description = "Subnets that it stands in."
  type        = list(string)
}

variable "ports" {
  description = "TCP ports that it passes on, to the same ports."
  type        = list(number)
}

variable "instances" {
  description = "Node -> instance behind it."
  type        = map(string)
}
