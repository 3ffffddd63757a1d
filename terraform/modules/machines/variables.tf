variable "nodes" {
  description = "The output of the same name of modules/pools."
  type = map(object({
    classes = list(string)
    labels  = map(string)
    volumes = list(object({ name = string, size_gib = number }))
  }))
}

variable "ids" {
  description = "Node -> the cloud's id of its machine."
  type        = map(string)
}

variable "private_ips" {
  description = "Node -> private IPv4 address."
  type        = map(string)
}

variable "public_ips" {
  description = "Node -> public IPv4 address, or null."
  type        = map(string)
}

variable "zones" {
  description = "Node -> zone."
  type        = map(string)
}

variable "region" {
  description = "Region of all machines."
  type        = string
}

variable "user" {
  description = "Who logs in."
  type        = string
}

variable "devices" {
  description = "<node>/<volume> -> path of the device on the node."
  type        = map(string)
}

variable "bastion" {
  description = "Address of the bastion; null where nodes are reached directly."
  type        = string
}

variable "load_balancers" {
  description = "Node class -> address of the load balancer in front of it."
  type        = map(string)
}
