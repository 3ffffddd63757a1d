variable "site" {
  description = "Name of the site."
  type        = string
}

variable "size" {
  description = "Instance type."
  type        = string
}

variable "image" {
  description = "AMI."
  type        = string
}

variable "subnet_id" {
  description = "Subnet with a way to the internet."
  type        = string
}

variable "security_group_id" {
  description = "The bastion's security group."
  type        = string
}

variable "user_data" {
  description = "The login."
  type        = string
}

variable "kms_key" {
  description = "ARN of the KMS key of its disk; null for the account's own."
  type        = string
}
