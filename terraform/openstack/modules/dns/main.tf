data "openstack_dns_zone_v2" "site" {
  name = "${trimsuffix(var.zone, ".")}."
}

resource "openstack_dns_recordset_v2" "address" {
  for_each = var.addresses

  zone_id = data.openstack_dns_zone_v2.site.id
  name    = "${each.key}.${var.domain}."
  type    = "A"
  ttl     = 60
  records = each.value
}
