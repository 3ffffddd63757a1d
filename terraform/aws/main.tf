# A site's machines on AWS: network, who may reach what, nodes, their volumes, load balancers, names.

provider "aws" {
  region = var.region

  default_tags {
    tags = merge(var.tags, { ashlar_site = module.ports.site })
  }
}

locals {
  bastion  = var.access == "bastion"
  gateways = cidrsubnet(var.network_cidr, 4, 0)

  # In front of which class a load balancer stands, and for which ports.
  balancers = { for class, balancer in {
    edge    = { wanted = var.edge_load_balancer, ports = [80, 443] }
    control = { wanted = var.api_load_balancer, ports = [module.ports.api_port] }
    } : class => balancer.ports if balancer.wanted && anytrue([for node in module.pools.nodes : contains(node.classes, class)])
  }

  default_image = alltrue([for node in module.pools.nodes : node.image != null]) && !local.bastion ? [] : var.image == null ? ["debian"] : []
  image         = try(coalesce(var.image, one(data.aws_ami.debian[*].id)), null)
}

module "ports" {
  source = "../modules/ports"

  site_folder = var.site_folder
  bastion     = local.bastion
  network     = var.network_cidr
  gateways = merge(
    local.bastion ? { "the bastion" = local.gateways } : {},
    var.api_load_balancer ? { "the API's load balancer" = local.gateways } : {},
  )
}

module "pools" {
  source = "../modules/pools"

  site  = module.ports.site
  zones = var.zones
  pools = var.pools
}

module "login" {
  source = "../modules/login"

  user            = var.user
  public_key_file = var.ssh_public_key
  site_folder     = var.site_folder
}

data "aws_ami" "debian" {
  count = length(local.default_image)

  most_recent = true
  owners      = ["136693071363"] # Debian's own account

  filter {
    name   = "name"
    values = ["debian-13-amd64-*"]
  }

  filter {
    name   = "virtualization-type"
    values = ["hvm"]
  }
}

module "network" {
  source = "./modules/network"

  site         = module.ports.site
  cidr         = var.network_cidr
  zones        = var.zones
  nat          = local.bastion
  nat_per_zone = var.nat_per_zone
}

module "security" {
  source = "./modules/security"

  site    = module.ports.site
  vpc_id  = module.network.vpc_id
  ingress = module.ports.ingress
  admin   = module.ports.admin
  bastion = local.bastion
}

module "bastion" {
  source = "./modules/bastion"
  count  = local.bastion ? 1 : 0

  site              = module.ports.site
  size              = var.bastion_size
  image             = local.image
  subnet_id         = module.network.gateway_subnets[var.zones[0]]
  security_group_id = module.security.groups["bastion"]
  user_data         = module.login.user_data
  kms_key           = var.kms_key
}

module "nodes" {
  source = "./modules/nodes"

  site            = module.ports.site
  nodes           = module.pools.nodes
  image           = local.image
  public          = !local.bastion
  private_subnets = module.network.private_subnets
  public_subnets  = module.network.public_subnets
  groups          = module.security.groups
  user            = module.login.user
  user_data       = module.login.user_data
  kms_key         = var.kms_key
  control_spread  = var.control_spread
}

module "volumes" {
  source = "./modules/volumes"

  volumes   = module.pools.volumes
  instances = module.nodes.ids
  kms_key   = var.kms_key
  snapshot  = var.snapshot_volumes
}

module "load_balancer" {
  source   = "./modules/load_balancer"
  for_each = local.balancers

  name      = "${module.ports.site}-${each.key == "control" ? "api" : each.key}"
  vpc_id    = module.network.vpc_id
  subnets   = values(module.network.gateway_subnets)
  ports     = each.value
  instances = { for name, node in module.pools.nodes : name => module.nodes.ids[name] if contains(node.classes, each.key) }
}

module "dns" {
  source = "./modules/dns"
  count  = var.dns_zone == null ? 0 : 1

  zone   = var.dns_zone
  domain = module.ports.domain
  balancers = {
    for record, class in { api = "control", "*" = "edge" } : record => {
      name                     = module.load_balancer[class].address
      zone_id                  = module.load_balancer[class].zone_id
    } if contains(keys(local.balancers), class)
  }
  addresses = { for record, it in module.machines.records : record => it.addresses if !it.balanced }
}

module "machines" {
  source = "../modules/machines"

  nodes          = module.pools.nodes
  ids            = module.nodes.ids
  private_ips    = module.nodes.private_ips
  public_ips     = module.nodes.public_ips
  zones          = module.nodes.zones
  region         = var.region
  user           = module.login.user
  devices        = module.volumes.devices
  bastion        = one(module.bastion[*].address)
  load_balancers = { for class, balancer in module.load_balancer : class => balancer.address }
}
