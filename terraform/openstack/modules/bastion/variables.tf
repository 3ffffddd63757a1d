variable "site" {
  description = "Name of the site."
  type        = string
}

variable "size" {
  description = "Flavor."
  type        = string
}

variable "image" {
  description = "Image, its name or its id."
  type        = string
}

variable "zone" {
  description = "Availability zone."
  type        = string
}

variable "network" {
  description = "The site's network."
  type        = string
}

variable "subnet" {
  description = "Subnet with a way outside."
  type        = string
}

variable "external_network" {
  description = "Name of the network that its floating address is from."
  type        = string
}

variable "security_group" {
  description = "The bastion's security group."
  type        = string
}

variable "user_data" {
  description = "The login."
  type        = string
}

variable "tags" {
  description = "Tags of port and floating address."
  type        = list(string)
}
