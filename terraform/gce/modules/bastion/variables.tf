variable "site" {
  description = "Name of the site."
  type        = string
}

variable "size" {
  description = "Machine type."
  type        = string
}

variable "image" {
  description = "Image or image family."
  type        = string
}

variable "region" {
  description = "Region of its address."
  type        = string
}

variable "zone" {
  description = "Zone."
  type        = string
}

variable "subnetwork" {
  description = "Subnet that it stands in."
  type        = string
}

variable "tags" {
  description = "Network tags."
  type        = list(string)
}

variable "user" {
  description = "User of the login."
  type        = string
}

variable "public_key" {
  description = "SSH public key of the login."
  type        = string
}

variable "user_data" {
  description = "The login for cloud-init."
  type        = string
}

variable "kms_key" {
  description = "Self link of the KMS key of its disk; null for Google's own."
  type        = string
}
