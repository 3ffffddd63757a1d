# A network load balancer: it passes packets on with the client's address, so the nodes' own rules say who may come.

locals {
  ports = { for port in var.ports : tostring(port) => port }
  targets = merge([for key, port in local.ports : {
    for node in keys(var.instances) : "${node}/${key}" => { node = node, port = key }
  }]...)
}

resource "aws_lb" "front" {
  name                             = var.name
  load_balancer_type               = "network"
  internal                         = false
  subnets                          = var.subnets
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = false
}

resource "aws_lb_target_group" "port" {
  for_each = local.ports

  name                 = "${var.name}-${each.key}"
  vpc_id               = var.vpc_id
  protocol             = "TCP"
  port                 = each.value
  target_type          = "instance"
  preserve_client_ip   = "true"
  deregistration_delay = "30"

  health_check {
    protocol            = "TCP"
    port                = "traffic-port"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "port" {
  for_each = local.ports

  load_balancer_arn = aws_lb.front.arn
  protocol          = "TCP"
  port              = each.value

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.port[each.key].arn
  }
}

resource "aws_lb_target_group_attachment" "node" {
  for_each = local.targets

  target_group_arn = aws_lb_target_group.port[each.value.port].arn
  target_id        = var.instances[each.value.node]
}
