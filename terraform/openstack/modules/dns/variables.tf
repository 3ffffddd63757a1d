variable "zone" {
  description = "Name of the zone."
  type        = string
}

variable "domain" {
  description = "The site's domain, which records are put before."
  type        = string
}

variable "addresses" {
  description = "Record -> addresses."
  type        = map(list(string))
}
