resource "google_dns_record_set" "address" {
  for_each = var.addresses

  managed_zone = var.zone
  name         = "${each.key}.${var.domain}."
  type         = "A"
  ttl          = 60
  rrdatas      = each.value
}
