# A group a node class, and one that every node is in. What comes in is what the manifests say; out may go anything.

locals {
  descriptions = merge(
    {
      nodes   = "Every node of the site"
      control = "Nodes of the class control"
      worker  = "Nodes of the class worker"
      edge    = "Nodes of the class edge"
      storage = "Nodes of the class storage"
    },
    var.bastion ? { bastion = "The bastion, through which SSH goes" } : {},
  )
}

resource "aws_security_group" "class" {
  for_each = local.descriptions

  name        = "${var.site}-${each.key}"
  description = each.value
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.site}-${each.key}" }
}

resource "aws_vpc_security_group_ingress_rule" "port" {
  for_each = var.ingress

  security_group_id            = aws_security_group.class[each.value.class].id
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.from_port
  to_port                      = each.value.to_port
  cidr_ipv4                    = each.value.cidr
  referenced_security_group_id = each.value.source == null ? null : aws_security_group.class[each.value.source].id
  description                  = each.value.description
  tags                         = { Name = each.key }
}

resource "aws_vpc_security_group_ingress_rule" "bastion" {
  for_each = var.bastion ? toset(var.admin) : toset([])

  security_group_id = aws_security_group.class["bastion"].id
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv4         = each.value
  description       = "SSH from the site's admin networks"
  tags              = { Name = "bastion/tcp-22/${each.value}" }
}

resource "aws_vpc_security_group_egress_rule" "all" {
  for_each = toset(concat(["nodes"], var.bastion ? ["bastion"] : []))

  security_group_id = aws_security_group.class[each.value].id
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
  description       = "Anywhere"
  tags              = { Name = "${each.value}/out" }
}
