variable "site" {
  description = "Name of the site."
  type        = string
}

variable "nodes" {
  description = "Output `nodes` of terraform/modules/pools."
  type = map(object({
    pool     = string
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
  description = "Image of nodes that name none, its name or its id."
  type        = string
}

variable "public" {
  description = "Whether every node has a floating address."
  type        = bool
}

variable "network" {
  description = "The site's network."
  type        = string
}

variable "subnet" {
  description = "Subnet of nodes."
  type        = string
}

variable "external_network" {
  description = "Name of the network that floating addresses are from."
  type        = string
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

variable "boot_volume" {
  description = "Whether system disks are volumes."
  type        = bool
}

variable "volume_type" {
  description = "Type of these volumes; null for the cloud's default."
  type        = string
}

variable "control_spread" {
  description = "Whether control nodes stand on different hypervisors."
  type        = bool
}

variable "tags" {
  description = "Tags of ports and floating addresses."
  type        = list(string)
}
