variable "zone" {
  description = "Name of the hosted zone."
  type        = string
}

variable "domain" {
  description = "The site's domain, which records are put before."
  type        = string
}

variable "balancers" {
  description = "Record -> the load balancer that it is an alias of."
  type = map(object({
    name    = string
    zone_id = string
  }))
}

variable "addresses" {
  description = "Record -> addresses, where no load balancer stands."
  type        = map(list(string))
}
