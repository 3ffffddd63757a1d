variable "site" {
  description = "Name of the site."
  type        = string
}

variable "volumes" {
  description = "Output `volumes` of terraform/modules/pools."
  type = map(object({
    node     = string
    name     = string
    size_gib = number
    type     = string
    zone     = string
  }))
}

variable "instances" {
  description = "Node -> server."
  type        = map(string)
}

variable "zones" {
  description = "Availability zone of compute -> that of volumes."
  type        = map(string)
}

variable "type" {
  description = "Type of volumes that name none; null for the cloud's default."
  type        = string
}
