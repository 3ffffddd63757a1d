variable "volumes" {
  description = "Output `volumes` of terraform/modules/pools."
  type = map(object({
    node     = string
    name     = string
    size_gib = number
    type     = string
    zone     = string
    position = number
  }))
}

variable "instances" {
  description = "Node -> instance."
  type        = map(string)
}

variable "kms_key" {
  description = "ARN of the KMS key; null for the account's own."
  type        = string
}

variable "snapshot" {
  description = "Whether a snapshot is taken before a volume is destroyed."
  type        = bool
}
