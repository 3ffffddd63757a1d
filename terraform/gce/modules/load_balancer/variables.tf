variable "name" {
  description = "Name of the load balancer."
  type        = string
}

variable "region" {
  description = "Its region."
  type        = string
}

variable "zones" {
  description = "Zones that nodes may stand in."
  type        = list(string)
}

variable "network" {
  description = "The network."
  type        = string
}

variable "subnetwork" {
  description = "The nodes' subnet."
  type        = string
}

variable "ports" {
  description = "TCP ports that it passes on, to the same ports; the last one is asked for health."
  type        = list(number)
}

variable "nodes" {
  description = "The nodes behind it."
  type = map(object({
    instance   = string
    zone       = string
    private_ip = string
  }))
}
