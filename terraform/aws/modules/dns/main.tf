data "aws_route53_zone" "site" {
  name = var.zone
}

resource "aws_route53_record" "balancer" {
  for_each = var.balancers

  zone_id = data.aws_route53_zone.site.zone_id
  name    = "${each.key}.${var.domain}"
  type    = "A"

  alias {
    name                   = each.value.name
    zone_id                = each.value.zone_id
    evaluate_target_health = false
  }
}

resource "aws_route53_record" "address" {
  for_each = var.addresses

  zone_id = data.aws_route53_zone.site.zone_id
  name    = "${each.key}.${var.domain}"
  type    = "A"
  ttl     = 60
  records = each.value
}
