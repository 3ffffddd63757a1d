# Machines that exist already, as a table: nothing is made and nothing destroyed here. The site has them by the same contract as those of a cloud,
# all of which is known, and so checked, when it is planned.

module "ports" {
  source      = "../modules/ports"
  site_folder = var.site_folder
}

module "contract" {
  source = "../modules/contract"
  nodes = { for name, machine in var.machines : name => {
    id             = machine.serial
    classes        = machine.classes
    private_ip     = machine.private_ip
    public_ip      = machine.public_ip
    user           = coalesce(machine.user, var.defaults.user)
    port           = try(coalesce(machine.port, var.defaults.port), null)
    zone           = try(coalesce(machine.zone, var.defaults.zone), null)
    labels         = merge(var.defaults.labels, machine.labels)
    volumes        = machine.volumes
    bastion        = try(coalesce(machine.bastion, var.defaults.bastion), null)
    ssh_host_keys  = machine.ssh_host_keys
    load_balancers = machine.load_balancers
    management     = machine.management
  } }
}

check "site" {
  assert {
    condition     = length([for machine in var.machines : machine if length(setsubtract(machine.classes, ["control"])) > 0]) > 0
    error_message = "${module.ports.site} has control nodes only. Where applications are to run, some machine needs the class worker."
  }
}
