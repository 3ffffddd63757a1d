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
  description = "Node -> name of its instance."
  type        = map(string)
}

variable "zones" {
  description = "Node -> the zone that it stands in."
  type        = map(string)
}

variable "kms_key" {
  description = "Self link of the KMS key; null for Google's own."
  type        = string
}

variable "snapshot" {
  description = "Whether a snapshot is taken before a volume is destroyed."
  type        = bool
}
